-- One compare-and-set over a queue: all of it, or nothing.
--
-- KEYS  what is live, what is due, the count of commits, then one key for each write: all of one queue
-- ARGV  1 time of the decision     2 most that it may be off, in ms   3 channel of the queue   4 who commits
--       5 longest value published  6 number of writes   7 of due entries done   8 of new due entries
--       then for each write: name, expected revision ('' = any), revision, 'live' | 'kept' | 'gone', value;
--       for each entry done: its name; for each new one: its time, its name
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local writes, done, due = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

-- A decision of another time, or one that was stuck on its way, does not count: whoever made it gave it up.
if writes + due > 0 and math.abs(now - tonumber(ARGV[1])) > tonumber(ARGV[2]) then
  return { 'late', now }
end

local at = 8 + writes * 5
local clash = {}
for i = 1, writes do
  local expected = ARGV[8 + (i - 1) * 5 + 2]
  if expected ~= '' then
    local found = redis.call('HMGET', KEYS[3 + i], 'r', 'v')
    if (found[1] or '0') ~= expected then
      clash[#clash + 1] = i - 1
      clash[#clash + 1] = found[1] or '0'
      clash[#clash + 1] = found[2] or ''
    end
  end
end
if #clash > 0 then
  return { 'conflict', now, clash }
end

local message = {}
local function say(text)
  message[#message + 1] = #text
  message[#message + 1] = ':'
  message[#message + 1] = text
end

if writes > 0 then
  local count = redis.call('INCR', KEYS[3])
  say('commit')
  say(ARGV[4])
  say(string.format('%d', count))
end
for i = 1, writes do
  local at = 8 + (i - 1) * 5
  local name, revision, state, value = ARGV[at + 1], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  if state == 'gone' then
    redis.call('DEL', KEYS[3 + i])
  else
    redis.call('HSET', KEYS[3 + i], 'r', revision, 'v', value, 'l', state == 'live' and '1' or '0')
  end
  if state == 'live' then
    redis.call('SADD', KEYS[1], name)
  else
    redis.call('SREM', KEYS[1], name)
  end
  say(name)
  say(revision)
  if #value > tonumber(ARGV[5]) then
    say('read')
    say('')
  else
    say(state)
    say(value)
  end
end
for i = 1, done do
  redis.call('ZREM', KEYS[2], ARGV[at + i])
end
at = at + done
for i = 1, due do
  redis.call('ZADD', KEYS[2], ARGV[at + i * 2 - 1], ARGV[at + i * 2])
end
if writes > 0 then
  redis.call('PUBLISH', ARGV[3], table.concat(message))
end
return { 'ok', now }
