-- Forgets the expired sessions of one bucket and reads its numbers.
-- KEYS  1 index  2 counters
-- ARGV  1 now ms  2 most to forget at once
-- Returns {tracked, created, resumed, expired}; the last three only ever grow.
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(expired) do redis.call('ZREM', KEYS[1], id) end
if #expired > 0 then redis.call('HINCRBY', KEYS[2], 'expired', #expired) end
local counts = redis.call('HMGET', KEYS[2], 'created', 'resumed', 'expired')
return {
  redis.call('ZCARD', KEYS[1]),
  tonumber(counts[1] or '0'), tonumber(counts[2] or '0'), tonumber(counts[3] or '0'),
}
