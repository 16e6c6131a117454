-- Revokes or blocks for a time; what is revoked or blocked for longer, or more of it, stays so.
-- KEYS  1 a hash of a user or of a token's id: field -> value, field_end -> until when, in ms
-- ARGV  1 field  2 value; '' is now, in seconds  3 for how long at most, in ms; 0 ends it
--       4 until when, in ms; 0 is for as long as 3 says
-- Returns now, in ms, or nothing if 4 has passed.
local field, life, until_ms = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local value = ARGV[2] == '' and tonumber(clock[1]) or tonumber(ARGV[2])
if until_ms > 0 then
  if until_ms <= now then return false end
  life = math.min(until_ms - now, life)
end
local last, ends = now, 0
if life > 0 then
  local before = redis.call('HMGET', KEYS[1], field, field .. '_end')
  ends = math.max(now + life, tonumber(before[2] or '0'))
  if tonumber(before[2] or '0') > now then value = math.max(value, tonumber(before[1] or '0')) end
end
redis.call('HSET', KEYS[1], field, string.format('%.0f', value), field .. '_end', string.format('%.0f', ends))
for _, one in ipairs(redis.call('HMGET', KEYS[1], 'blocked_end', 'issued_end', 'revoked_end')) do
  if one then last = math.max(last, tonumber(one)) end
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(last - now, 1)))
return string.format('%.0f', now)
