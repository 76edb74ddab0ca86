-- Lines of a log from a number on, with how many there ever were and how many of them are kept.
--
-- KEYS  the lines, their numbers     ARGV  1 number of the first wanted   2 at most so many
local total = tonumber(redis.call('HGET', KEYS[2], 'total') or '0')
local kept = redis.call('LLEN', KEYS[1])
local start = math.max(tonumber(ARGV[1]), total - kept)
local from = start - (total - kept)
if start >= total then
  return { total, start, {} }
end
return { total, start, redis.call('LRANGE', KEYS[1], from, math.min(from + tonumber(ARGV[2]), kept) - 1) }
