-- Takes a document away unless it was named lately. How long ago that was tells its time to live, which is set anew
-- each time; one without was never named.
--
-- KEYS  the document    ARGV  1 time to live that a naming sets, in ms   2 how long ago counts as lately, in ms
local left = redis.call('PTTL', KEYS[1])
if left >= 0 and tonumber(ARGV[1]) - left <= tonumber(ARGV[2]) then
  return 0
end
return redis.call('DEL', KEYS[1])
