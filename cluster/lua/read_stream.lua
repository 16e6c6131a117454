-- Reads a channel's position and, if asked, publications, as one step.
-- KEYS  1 meta  2 stream
-- ARGV  1 epoch for a new stream ('' = a stream that was never used stays so)
--       2 meta ttl ms (0 = none)  3 first id or '-'  4 last id or '+'
--       5 limit (0 = position only, -1 = all)  6 '1' to read backwards
--       7 most bytes of publications; the first one is returned whatever its size
--       8 an offset: all publications after it or none  ('' = as many as the limits allow)
-- Returns {top offset, epoch, {{id, {'d', publication}}, ...}, 1 if the bytes have ended it, else 0}.
-- With an epoch given, a stream never used gets it here, so that a client always holds one.
-- The stream is read in pieces, because the limit of bytes is for this server's memory too.
local UNUSED_MS, FIRST, MOST = 3600000, 8, 32
local meta = redis.call('HMGET', KEYS[1], 'o', 'e')
local offset, epoch = tonumber(meta[1] or '0'), meta[2]
if not epoch then
  if ARGV[1] == '' then return {0, '', {}, 0} end
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0)
  redis.call('DEL', KEYS[2])
end
local life = tonumber(ARGV[2])
-- Anybody may ask for any name: what nothing was published to is kept for an hour at most.
if offset == 0 and (life == 0 or life > UNUSED_MS) then life = UNUSED_MS end
if life > 0 then redis.call('PEXPIRE', KEYS[1], life) end

local left, bytes, whole = tonumber(ARGV[5]), tonumber(ARGV[7]), ARGV[8] ~= ''
if left == 0 or (whole and left > 0 and offset - tonumber(ARGV[8]) > left) then
  return {offset, epoch, {}, 0}
end
local command, from, to = 'XRANGE', ARGV[3], ARGV[4]
if ARGV[6] == '1' then command, from, to = 'XREVRANGE', ARGV[4], ARGV[3] end
local entries, largest, count = {}, 1, FIRST
while left ~= 0 do
  if left > 0 and left < count then count = left end
  local read = redis.call(command, KEYS[2], from, to, 'COUNT', count)
  for _, entry in ipairs(read) do
    local size = #entry[2][2]
    if size > bytes and (whole or #entries > 0) then
      if whole then entries = {} end
      return {offset, epoch, entries, 1}
    end
    bytes = bytes - size
    if size > largest then largest = size end
    entries[#entries + 1] = entry
  end
  if #read < count then break end
  from = '(' .. read[count][1]
  if left > 0 then left = left - count end
  count = math.max(1, math.min(MOST, math.floor(bytes / largest)))
end
return {offset, epoch, entries, 0}
