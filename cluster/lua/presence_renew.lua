-- Renews a worker's entries of a channel, then removes entries that have expired and tells the subscribers.
-- ARGV  1 ttl ms  2 shard channel  3 most to remove (0 = none)  4.. clients
-- Returns {clients without an entry, ms until the first entry expires or -1 without entries}.
local ttl, missing = tonumber(ARGV[1]), {}
local expiry = string.format('%.0f', now + ttl)
for i = 4, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[2], expiry, ARGV[i])
  else
    missing[#missing + 1] = ARGV[i]
  end
end
if #ARGV > 3 then keep(ttl) end
if ARGV[3] ~= '0' then remove_expired(ARGV[3]) end
send_events(ARGV[2])
local first = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return {missing, first[2] and math.max(0, tonumber(first[2]) - now) or -1}
