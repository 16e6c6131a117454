-- Forgets the expired sessions of one bucket and reads its numbers.
-- KEYS  1 index  2 counters
-- ARGV  1 most to forget at once
-- Returns {tracked, created, resumed, expired}; the last three only ever grow.
-- The store's clock, not the worker's: workers with another time would expire each other's sessions.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local before = string.format('(%.0f', now)
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(expired) do redis.call('ZREM', KEYS[1], id) end
if #expired > 0 then redis.call('HINCRBY', KEYS[2], 'expired', #expired) end
local counts = redis.call('HMGET', KEYS[2], 'created', 'resumed', 'expired')
return {
  redis.call('ZCARD', KEYS[1]),
  tonumber(counts[1] or '0'), tonumber(counts[2] or '0'), tonumber(counts[3] or '0'),
}
