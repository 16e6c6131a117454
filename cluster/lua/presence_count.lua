-- Counts the members and users of a channel; its cost does not depend on the numbers.
-- ARGV  1 shard channel  2 most expired entries to remove (0 = none)
-- Returns {clients, users, 1 if there may be more that have expired, else 0}.
local most = tonumber(ARGV[2])
local is_full = most > 0 and remove_expired(most) == most
send_events(ARGV[1])
return {redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[3]), is_full and 1 or 0}
