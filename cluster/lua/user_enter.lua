-- Counts connections of a user, unless the user has as many as are allowed; or renews those that count.
-- KEYS  1 the user's connections: a sorted set, id -> when it stops counting, in ms
-- ARGV  1 for how long they count, in ms  2 the limit; 0 renews  3… ids of connections
-- The store's clock, not the worker's: a worker with another time would let too many in.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))) do
  redis.call('ZREM', KEYS[1], id)
end
local limit = tonumber(ARGV[2])
if limit > 0 and redis.call('ZCARD', KEYS[1]) >= limit then
  return 0
end
local expiry = string.format('%.0f', now + tonumber(ARGV[1]))
for i = 3, #ARGV do
  redis.call('ZADD', KEYS[1], expiry, ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
