-- The name of what the store holds: another one once something of it was lost, or all of it.
--
-- KEYS  the name    ARGV  1 'lost' if something is missing   2 the name known so far   3 the next one
local found = redis.call('GET', KEYS[1])
if found and not (ARGV[1] == 'lost' and found == ARGV[2]) then
  return found
end
redis.call('SET', KEYS[1], ARGV[3])
return ARGV[3]
