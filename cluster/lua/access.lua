-- Reads what is revoked or blocked of a user and lasts.
-- KEYS  1 a hash of a user; see `revoke`
-- Returns 'blocked', the Unix time at or before which tokens were issued that are revoked, or nothing.
-- The store's clock, not the worker's: a worker whose clock is ahead would let in who is blocked.
local found = redis.call('HMGET', KEYS[1], 'blocked_end', 'issued_end', 'issued')
if not (found[1] or found[2]) then return false end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if tonumber(found[1] or '0') > now then return 'blocked' end
if tonumber(found[2] or '0') > now then return found[3] end
return false
