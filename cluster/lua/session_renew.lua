-- Renews the attached sessions of one bucket and adds the messages they received meanwhile.
-- KEYS  1 index  2.. records
-- ARGV  1 now ms  2 ttl ms  3.. id, messages to add (a pair for each record)
-- Returns how many were still there.
local expiry = tonumber(ARGV[1]) + tonumber(ARGV[2])
local renewed = 0
for i = 2, #KEYS do
  local id, messages = ARGV[2 * i - 1], ARGV[2 * i]
  if redis.call('PEXPIRE', KEYS[i], tonumber(ARGV[2]) + 60000) == 1 then
    redis.call('ZADD', KEYS[1], expiry, id)
    if messages ~= '0' then redis.call('HINCRBY', KEYS[i], 'messages', messages) end
    renewed = renewed + 1
  end
end
return renewed
