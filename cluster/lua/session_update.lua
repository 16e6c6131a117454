-- Changes a session's state or channels and tells every worker that holds it.
-- KEYS  1 record  2 index
-- ARGV  1 id  2 now ms  3 state JSON or ''  4 channels JSON or ''  5 expected version or ''
--       6 shard channel for changes
-- Returns the new version, -1 if there is no such session, -2 if the version differs.
local expiry = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not expiry or tonumber(expiry) < tonumber(ARGV[2]) then return -1 end
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return -1 end
if ARGV[5] ~= '' and ARGV[5] ~= version then return -2 end
version = redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'state', ARGV[3]) end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'channels', ARGV[4]) end
local now = redis.call('HMGET', KEYS[1], 'state', 'channels')
local channels = now[2] or '[]'
redis.call('SPUBLISH', ARGV[6],
  '1:' .. ARGV[1] .. ':' .. version .. ':' .. #channels .. ':' .. channels .. (now[1] or 'null'))
return version
