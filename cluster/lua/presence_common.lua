-- What the scripts of presence share; it is put before each of them.
-- KEYS  1 entries (hash: client -> entry)  2 their ends (zset: client -> ms)  3 users (hash: user -> entries)
-- An entry is `<bytes of the user>:<user><ClientInfo as JSON>`; with a zero before it, nobody is told of it.
-- The store's clock, not the worker's: workers with another time would expire each other's entries.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local events = {}

local function user_and_info(entry)
  local colon = string.find(entry, ':', 1, true)
  local user_end = colon + tonumber(string.sub(entry, 1, colon - 1))
  local is_told = colon == 2 or string.sub(entry, 1, 1) ~= '0'
  return string.sub(entry, colon + 1, user_end), string.sub(entry, user_end + 1), is_told
end

local function remove(client)
  local entry = redis.call('HGET', KEYS[1], client)
  redis.call('ZREM', KEYS[2], client)
  if not entry then return end
  redis.call('HDEL', KEYS[1], client)
  local user, info, is_told = user_and_info(entry)
  if redis.call('HINCRBY', KEYS[3], user, -1) <= 0 then redis.call('HDEL', KEYS[3], user) end
  if is_told then events[#events + 1] = 'l' .. info end
end

local function remove_expired(most)
  local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, most)
  for _, client in ipairs(expired) do remove(client) end
  return #expired
end

local function keep(ttl)
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ttl + 60000) end
end

local function send_events(shard_channel)
  if #events > 0 then
    redis.call('SPUBLISH', shard_channel, '2:' .. table.concat(events, '\n'))
  end
end

