-- Counts connections of a user, unless the user has as many as are allowed; or renews those that count.
-- KEYS  1 the user's connections: a sorted set, id -> when it stops counting, in ms
-- ARGV  1 now, in ms  2 when these connections stop counting  3 for how long they count
--       4 the limit; 0 renews  5… ids of connections
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])) do
  redis.call('ZREM', KEYS[1], id)
end
local limit = tonumber(ARGV[4])
if limit > 0 and redis.call('ZCARD', KEYS[1]) >= limit then
  return 0
end
for i = 5, #ARGV do
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
