-- Publishes as `publish` does, unless it was published before: as one step.
-- KEYS  1 meta (hash: o = top offset, e = epoch, v = version, ve = its epoch)  2 stream (id = offset)
--       3 result of the idempotency key (hash: o = offset, e = epoch)
-- ARGV  1 publication as JSON  2 history size (0 = not kept)  3 history ttl ms  4 meta ttl ms (0 = none)
--       5 epoch for a new stream  6 accepted at, ms  7 shard channel
--       8 life of the result, ms ('' = there is no key)
--       9 version ('' = none; only for a publication that is kept)  10 version epoch ('' = any)
-- Returns {offset, epoch, what suppressed it: '' = nothing, 'idempotency_key' or 'version'}.
if ARGV[8] ~= '' then
  local result = redis.call('HMGET', KEYS[3], 'o', 'e')
  if result[1] then return {tonumber(result[1]), result[2], 'idempotency_key'} end
end
local written, epoch = '0', ''
if ARGV[2] ~= '0' then
  local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'v', 've')
  epoch = meta[1]
  if ARGV[9] ~= '' then
    local is_comparable = ARGV[10] == '' or ARGV[10] == meta[4]
    if epoch and meta[3] and is_comparable and tonumber(ARGV[9]) <= tonumber(meta[3]) then
      return {tonumber(meta[2] or '0'), epoch, 'version'}
    end
  end
  if not epoch then
    epoch = ARGV[5]
    redis.call('HSET', KEYS[1], 'e', epoch)
    redis.call('DEL', KEYS[2])
  end
  if ARGV[9] ~= '' then redis.call('HSET', KEYS[1], 'v', ARGV[9], 've', ARGV[10]) end
  local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
  written = string.format('%.0f', offset)
  redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], written .. '-0', 'd', ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  if ARGV[4] ~= '0' then
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
  elseif offset == 1 then
    redis.call('PERSIST', KEYS[1])
  end
end
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[3], 'o', written, 'e', epoch)
  redis.call('PEXPIRE', KEYS[3], ARGV[8])
end
redis.call('SPUBLISH', ARGV[7],
  '1:' .. written .. ':' .. epoch .. ':' .. ARGV[6] .. ':' .. ARGV[1])
return {tonumber(written), epoch, ''}
