-- Appends one publication to a channel's stream and sends it to the subscribers, as one step.
-- KEYS  1 meta (hash: o = top offset, e = epoch)  2 stream (id = offset)
-- ARGV  1 publication as JSON  2 history size  3 history ttl ms  4 meta ttl ms (0 = none)
--       5 epoch for a new stream  6 accepted at, ms  7 shard channel
-- Returns {offset, epoch}. Stream and pub/sub agree because nothing can come between them.
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = ARGV[5]
  redis.call('HSET', KEYS[1], 'e', epoch)
  -- Offsets restart with the epoch, and XADD refuses an id below the last one.
  redis.call('DEL', KEYS[2])
end
local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
-- tostring() turns to scientific notation at 1e14.
local written = string.format('%.0f', offset)
redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], written .. '-0', 'd', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if ARGV[4] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
elseif offset == 1 then
  -- A read of the unused stream has given it an end.
  redis.call('PERSIST', KEYS[1])
end
redis.call('SPUBLISH', ARGV[7],
  '1:' .. written .. ':' .. epoch .. ':' .. ARGV[6] .. ':' .. ARGV[1])
return {offset, epoch}
