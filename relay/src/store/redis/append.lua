-- Appends the lines of a log that are not there yet, and lets the oldest go.
--
-- KEYS  the lines, their numbers
-- ARGV  1 number of the first line ('' = all are new)   2 most lines kept   3 most bytes kept   then the lines
local total = tonumber(redis.call('HGET', KEYS[2], 'total') or '0')
local known = 0
if ARGV[1] ~= '' then
  known = math.max(0, total - tonumber(ARGV[1]))
end
local added, bytes = 0, 0
for i = 4 + known, #ARGV do
  redis.call('RPUSH', KEYS[1], ARGV[i])
  added = added + 1
  bytes = bytes + #ARGV[i]
end
if added == 0 then
  return 0
end
redis.call('HINCRBY', KEYS[2], 'total', added)
bytes = redis.call('HINCRBY', KEYS[2], 'bytes', bytes)
local before, kept = bytes, redis.call('LLEN', KEYS[1])
while kept > tonumber(ARGV[2]) or (bytes > tonumber(ARGV[3]) and kept > 1) do
  bytes = bytes - #redis.call('LPOP', KEYS[1])
  kept = kept - 1
end
if bytes ~= before then
  redis.call('HSET', KEYS[2], 'bytes', bytes)
end
return added
