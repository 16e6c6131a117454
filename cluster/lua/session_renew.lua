-- Renews the attached sessions of one bucket and adds the messages they received meanwhile.
-- KEYS  1 index  2.. records
-- ARGV  1 ttl ms  2.. id, messages to add (a pair for each record)
-- Returns how many were still there.
-- The store's clock, not the worker's: workers with another time would expire each other's sessions.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ttl = tonumber(ARGV[1])
local expiry = string.format('%.0f', now + ttl)
local renewed = 0
for i = 2, #KEYS do
  local id, messages = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if redis.call('PEXPIRE', KEYS[i], ttl + 60000) == 1 then
    redis.call('ZADD', KEYS[1], expiry, id)
    if messages ~= '0' then redis.call('HINCRBY', KEYS[i], 'messages', messages) end
    renewed = renewed + 1
  end
end
return renewed
