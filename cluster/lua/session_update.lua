-- Changes a session's state or channels and tells every worker that holds it.
-- KEYS  1 record  2 index
-- ARGV  1 id  2 state JSON or ''  3 channels JSON or ''  4 expected version or ''
--       5 shard channel for changes
-- Returns the new version, -1 if there is no such session, -2 if the version differs.
-- The store's clock, not the worker's: workers with another time would expire each other's sessions.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local expiry = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not expiry or tonumber(expiry) < now then return -1 end
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return -1 end
if ARGV[4] ~= '' and ARGV[4] ~= version then return -2 end
version = redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'state', ARGV[2]) end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'channels', ARGV[3]) end
local held = redis.call('HMGET', KEYS[1], 'state', 'channels')
local channels = held[2] or '[]'
redis.call('SPUBLISH', ARGV[5],
  '1:' .. ARGV[1] .. ':' .. version .. ':' .. #channels .. ':' .. channels .. (held[1] or 'null'))
return version
