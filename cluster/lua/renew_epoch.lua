-- Gives a channel a new epoch, because its stream has lost publications that were delivered.
-- KEYS  1 meta (hash: o = top offset, e = epoch)
-- ARGV  1 the epoch that is to end  2 new epoch  3 shard channel, whose subscribers are told with '3:'
-- Returns {top offset, epoch}; another worker may have been first, then its epoch stays.
local meta = redis.call('HMGET', KEYS[1], 'o', 'e')
local epoch = meta[2] or ''
if epoch == ARGV[1] then
  epoch = ARGV[2]
  redis.call('HSET', KEYS[1], 'e', epoch)
  redis.call('SPUBLISH', ARGV[3], '3:')
end
return {tonumber(meta[1] or '0'), epoch}
