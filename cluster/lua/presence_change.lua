-- Changes the members of a channel, in order, and tells its subscribers, as one step.
-- ARGV  1 ttl ms  2 shard channel
--       3.. kind, client, entry of each change: a adds, j adds and tells, l removes and tells
local ttl = tonumber(ARGV[1])
-- If the store has dropped the entries alone, the numbers would stay too high.
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2], KEYS[3]) end
local expiry = string.format('%.0f', now + ttl)
for i = 3, #ARGV, 3 do
  local kind, client, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if kind == 'l' then
    remove(client)
  else
    local user, info, is_told = user_and_info(entry)
    if redis.call('HSET', KEYS[1], client, entry) == 1 then redis.call('HINCRBY', KEYS[3], user, 1) end
    redis.call('ZADD', KEYS[2], expiry, client)
    if kind == 'j' and is_told then events[#events + 1] = 'j' .. info end
  end
end
keep(ttl)
send_events(ARGV[2])
return #events
