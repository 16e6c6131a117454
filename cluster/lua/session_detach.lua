-- Takes one connection off a session; the session lives on for its ttl, or ends if it may.
-- KEYS  1 record  2 index  3 counters
-- ARGV  1 id  2 ttl ms  3 messages to add  4 '1' if it may end when nothing is in it
-- Returns 1 if the session has ended, else 0.
-- The store's clock, not the worker's: workers with another time would expire each other's sessions.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local attached = redis.call('HINCRBY', KEYS[1], 'attached', -1)
redis.call('HINCRBY', KEYS[1], 'messages', ARGV[3])
if ARGV[4] == '1' and attached <= 0 then
  local left = redis.call('HMGET', KEYS[1], 'state', 'channels')
  if not left[1] and not left[2] then
    redis.call('DEL', KEYS[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    return 1
  end
end
local ttl = tonumber(ARGV[2])
redis.call('ZADD', KEYS[2], 'XX', string.format('%.0f', now + ttl), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ttl + 60000)
return 0
