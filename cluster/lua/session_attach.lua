-- Creates a session, or takes one up if it exists, has not expired and belongs to the user.
-- KEYS  1 record  2 index (zset id -> expiry ms)  3 counters
-- ARGV  1 id  2 user  3 ttl ms  4 '1' to resume, '0' to create
-- Returns {created ms, messages, version, state, channels}, or nothing if it cannot be resumed.
-- The store's clock, not the worker's: workers with another time would expire each other's sessions.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local id, user, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
if ARGV[4] == '1' then
  local expiry = redis.call('ZSCORE', KEYS[2], id)
  if not expiry or tonumber(expiry) < now then return false end
  if redis.call('HGET', KEYS[1], 'user') ~= user then return false end
  redis.call('HINCRBY', KEYS[3], 'resumed', 1)
else
  redis.call('HSET', KEYS[1], 'user', user, 'created', string.format('%.0f', now), 'messages', 0, 'version', 0)
  redis.call('HINCRBY', KEYS[3], 'created', 1)
end
redis.call('HINCRBY', KEYS[1], 'attached', 1)
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ttl), id)
-- The record outlives its entry in the index a little: the index decides, and is swept.
redis.call('PEXPIRE', KEYS[1], ttl + 60000)
return redis.call('HMGET', KEYS[1], 'created', 'messages', 'version', 'state', 'channels')
