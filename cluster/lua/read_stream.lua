-- Reads a channel's position and, if asked, publications, as one step.
-- KEYS  1 meta  2 stream
-- ARGV  1 epoch for a new stream  2 meta ttl ms (0 = none)  3 first id or ''  4 last id
--       5 limit (0 = position only, -1 = all)  6 '1' to read backwards
-- Returns {top offset, epoch, {{id, {'d', publication}}, ...}}. A stream never used gets its
-- epoch here, so that a client always holds one.
local meta = redis.call('HMGET', KEYS[1], 'o', 'e')
local epoch = meta[2]
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0)
  redis.call('DEL', KEYS[2])
end
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
local entries = {}
local limit = tonumber(ARGV[5])
if limit ~= 0 then
  local command, from, to = 'XRANGE', ARGV[3], ARGV[4]
  if ARGV[6] == '1' then command, from, to = 'XREVRANGE', ARGV[4], ARGV[3] end
  if limit < 0 then
    entries = redis.call(command, KEYS[2], from, to)
  else
    entries = redis.call(command, KEYS[2], from, to, 'COUNT', limit)
  end
end
return {tonumber(meta[1] or '0'), epoch, entries}
