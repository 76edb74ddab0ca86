-- What is due in a queue, the oldest first, never before its time by the server's own clock.
--
-- KEYS  what is due     ARGV  1 until   2 at most so many
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', math.min(now, tonumber(ARGV[1])), 'LIMIT', 0, ARGV[2])
return { now, found }
