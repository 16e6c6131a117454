-- Takes one connection off a session; the session lives on for its ttl, or ends if it may.
-- KEYS  1 record  2 index  3 counters
-- ARGV  1 id  2 now ms  3 ttl ms  4 messages to add  5 '1' if it may end when nothing is in it
-- Returns 1 if the session has ended, else 0.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local attached = redis.call('HINCRBY', KEYS[1], 'attached', -1)
redis.call('HINCRBY', KEYS[1], 'messages', ARGV[4])
if ARGV[5] == '1' and attached <= 0 then
  local left = redis.call('HMGET', KEYS[1], 'state', 'channels')
  if not left[1] and not left[2] then
    redis.call('DEL', KEYS[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    return 1
  end
end
redis.call('ZADD', KEYS[2], 'XX', tonumber(ARGV[2]) + tonumber(ARGV[3]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]) + 60000)
return 0
