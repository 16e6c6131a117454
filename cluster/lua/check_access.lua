-- Runs every command of the other scripts once, so that a missing permission is found at the start.
-- KEYS  1 a hash  2 a stream  3 a sorted set, which nothing else uses
-- ARGV  1 a shard channel that nothing else uses
redis.call('TIME')
redis.call('HSET', KEYS[1], 'o', 0)
redis.call('HGET', KEYS[1], 'o')
redis.call('HMGET', KEYS[1], 'o', 'e')
redis.call('HINCRBY', KEYS[1], 'o', 1)
redis.call('EXISTS', KEYS[1])
redis.call('PEXPIRE', KEYS[1], 60000)
redis.call('PERSIST', KEYS[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '=', 1, '*', 'd', '')
redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
redis.call('ZADD', KEYS[3], 1, 'a')
redis.call('ZSCORE', KEYS[3], 'a')
redis.call('ZCARD', KEYS[3])
redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '+inf', 'LIMIT', 0, 1)
redis.call('ZREM', KEYS[3], 'a')
redis.call('SPUBLISH', ARGV[1], '')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 1
