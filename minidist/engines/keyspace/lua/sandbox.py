"""The Lua side of scripting: what a script sees, and how it is stopped.

This text runs once in a new interpreter and returns functions that Python calls. A script sees the globals below and
nothing else: no files, no loading of bytecode, no Python. The globals are read-only, as in Redis 7.

Three things in C could run or grow without bound where the instruction hook does not reach: `string.rep`, patterns with
much backtracking, `table.concat`. The first is bounded here, patterns by the length of their subject; memory by the
interpreter's own limit.

The limit on time is a hook that runs every so many instructions. Once time is up it runs at every instruction and
raises each time, so that a script which catches errors with pcall is stopped too. In Lua 5.1 a hook that was set from
Lua belongs to one coroutine, so each gets it when it begins; beginning many counts, too, as each counts for itself.
"""

LONGEST_STRING_BYTES = 64 * 1024**2
LONGEST_SUBJECT_BYTES = 1024**2

SANDBOX = b"""
local raw_call, raw_log, acl_check, sha1hex, libraries, of_functions, most_kb = ...
local longest, longest_subject = libraries.longest, libraries.longest_subject
local sethook, getinfo = debug.sethook, debug.getinfo
local error, type, tostring, tonumber, setmetatable = error, type, tostring, tonumber, setmetatable
local raw_pcall, xpcall, rawset, next = pcall, xpcall, rawset, next
local loadstring, setfenv, select, unpack, concat = loadstring, setfenv, select, unpack, table.concat

-- Python needs room: see machine.py. Raises an error where there is none.
local gcinfo, collectgarbage = gcinfo, collectgarbage
local function is_full()
  if gcinfo() <= most_kb then return false end
  collectgarbage()
  return gcinfo() > most_kb
end
local function room()
  if is_full() then error('not enough memory', 0) end
end

local function copy(from, names)
  local to = {}
  for name in names:gmatch('[%w_]+') do to[name] = from[name] end
  return to
end

local protected = setmetatable({}, {__mode = 'k'})
local function refuse() error('Attempt to modify a readonly table', 2) end
local function nonexistent(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end
local function readonly(table, missing)
  if missing then setmetatable(table, {__index = missing}) end
  local made = setmetatable({}, {__index = table, __newindex = refuse, __metatable = false})
  protected[made] = true
  return made
end

-- A tail call forgets its caller's line, which is known all the same where there is only one.
local running, one_line
local function only_line()
  if one_line then return '@user_script', 1 end
  local info = getinfo(running, 'S')
  if info.what ~= 'main' and info.linedefined == info.lastlinedefined then return info.source, info.linedefined end
end

-- What a library complains of, with the place of its caller in front of it.
local function complain(text)
  if getinfo(3, 'l').currentline > 0 then error(text, 3) end
  local source, line = only_line()
  error(source and source:sub(2) .. ':' .. line .. ': ' .. text or text, 0)
end

-- What Redis' own functions complain of has no place in front of it.
local function fail(text) error({err = 'ERR ' .. text}) end

local strings = string
local rep, find, match, gmatch, gsub = string.rep, string.find, string.match, string.gmatch, string.gsub
strings.dump = nil
strings.rep = function(text, count)
  text = tostring(text)
  if #text * count > longest then error('resulting string too large', 2) end
  return rep(text, count)
end
local function bounded(search)
  return function(subject, ...)
    if #tostring(subject) > longest_subject then error('string too long for a pattern', 2) end
    return search(subject, ...)
  end
end
strings.match, strings.gmatch, strings.gsub = bounded(match), bounded(gmatch), bounded(gsub)
strings.find = function(subject, pattern, init, plain)
  if not plain and #tostring(subject) > longest_subject then error('string too long for a pattern', 2) end
  return find(subject, pattern, init, plain)
end

local redis = {
  LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
  REPL_NONE = 0, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_ALL = 3,
  REDIS_VERSION = libraries.version, REDIS_VERSION_NUM = libraries.version_number,
}
redis.call = function(...)
  room()
  local ok, value = raw_call(...)
  if not ok then error(value, 0) end
  return value
end
redis.pcall = function(...)
  room()
  local ok, value = raw_call(...)
  return value
end
redis.error_reply = function(...)
  local text = ...
  if select('#', ...) ~= 1 or type(text) ~= 'string' then return {err = 'ERR wrong number or type of arguments'} end
  if text:sub(1, 1) == '-' then text = text:sub(2) end
  local code, rest = text:match('^([^ ]*) (.*)$')
  if not code then code, rest = 'ERR', text end
  return {err = code .. ' ' .. rest:gsub('^[\\r\\n]+', ''):gsub('[\\r\\n]+$', '')}
end
redis.status_reply = function(...)
  local text = ...
  if select('#', ...) ~= 1 or type(text) ~= 'string' then return {err = 'ERR wrong number or type of arguments'} end
  return {ok = text}
end
redis.sha1hex = function(...)
  if select('#', ...) ~= 1 then fail('wrong number of arguments') end
  room()
  local kind = type((...))
  return sha1hex((kind == 'string' or kind == 'number') and tostring((...)) or '')
end
redis.log = function(...)
  local count, level = select('#', ...), tonumber((...))
  if count < 2 then fail('redis.log() requires two arguments or more.') end
  if not level then fail('First argument must be a number (log level).') end
  if level < 0 or level >= 4 then fail('Invalid debug level.') end
  local words = {}
  for at = 2, count do
    local word = select(at, ...)
    if type(word) == 'string' or type(word) == 'number' then words[#words + 1] = tostring(word) end
  end
  room()
  raw_log(level, concat(words, ' '))
end
redis.setresp = function(...)
  if select('#', ...) ~= 1 then fail('redis.setresp() requires one argument.') end
  local version = tonumber((...))
  if version ~= 2 and version ~= 3 then fail('RESP version must be 2 or 3.') end
  libraries.setresp(version)
end
redis.set_repl = function(...)
  if select('#', ...) ~= 1 then fail('redis.set_repl() requires one argument.') end
  local flags = tonumber((...)) or 0
  if flags < 0 or flags >= 4 then
    fail('Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.')
  end
end
redis.acl_check_cmd = function(...)
  room()
  local ok, value = acl_check(...)
  if not ok then fail(value) end
  return value
end
if not of_functions then
  redis.replicate_commands = function() return true end
  redis.breakpoint = function() return false end
  redis.debug = function() end
end

-- `guard` gives the coroutine that begins the hook that `limit` made for the script.
local guard
local function guarded(name)
  local make = coroutine[name]
  coroutine[name] = function(body)
    if type(body) ~= 'function' or getinfo(body, 'S').what == 'C' then
      error("bad argument #1 to '" .. name .. "' (Lua function expected)", 2)
    end
    return make(function(...)
      guard()
      return body(...)
    end)
  end
end
guarded('create')
guarded('wrap')

local null = newproxy()
local function library(names)
  local made = {}
  for name in names:gmatch('[%w_]+') do
    local raw = libraries[name]
    made[name:gsub('^%a+_', '')] = function(...)
      room()
      local ok, a, b, c = raw(...)
      if not ok then complain(a) end
      if type(a) == 'table' and b == libraries.many then return unpack(a, 1, c) end
      return a
    end
  end
  return made
end
local cjson = library([[cjson_encode cjson_decode cjson_encode_sparse_array cjson_encode_max_depth
  cjson_decode_max_depth cjson_encode_number_precision cjson_encode_keep_buffer cjson_encode_invalid_numbers
  cjson_decode_invalid_numbers]])
cjson.null = null
cjson._NAME, cjson._VERSION = 'cjson', '2.1.0'
local cmsgpack = library('cmsgpack_pack cmsgpack_unpack cmsgpack_unpack_one cmsgpack_unpack_limit')
cmsgpack._NAME, cmsgpack._VERSION = 'cmsgpack', 'lua-cmsgpack 0.4.0'
local struct = library('struct_pack struct_unpack struct_size')
local bit = library([[bit_tobit bit_tohex bit_bnot bit_band bit_bor bit_bxor bit_lshift bit_rshift bit_arshift
  bit_rol bit_ror bit_bswap]])

local globals
local world = copy(_G, [[assert collectgarbage error gcinfo getmetatable ipairs next pairs rawequal rawget select
  setmetatable tonumber tostring type unpack xpcall _VERSION]])
world.string = readonly(strings)
world.table = readonly(table)
local numbers = copy(math, [[abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log log10
  max min mod modf pi pow rad sin sinh sqrt tan tanh]])
local draw, seed, clock, floor, huge = libraries.random, libraries.randomseed, libraries.clock, math.floor, math.huge
local function number(at, name, ...)
  local value = tonumber((select(at, ...)))
  if value then return value end
  local found = select('#', ...) < at and 'no value' or type((select(at, ...)))
  error("bad argument #" .. at .. " to '" .. name .. "' (number expected, got " .. found .. ")", 3)
end
numbers.random = function(...)
  local count = select('#', ...)
  if count == 0 then return draw() end
  if count > 2 then error('wrong number of arguments', 2) end
  local low, high = 1, number(1, 'random', ...)
  if count == 2 then low, high = high, number(2, 'random', ...) end
  low, high = floor(low), floor(high)
  if not (low <= high and high - low < huge) then
    error("bad argument #" .. count .. " to 'random' (interval is empty)", 2)
  end
  return draw(low, high)
end
numbers.randomseed = function(...)
  local given = number(1, 'randomseed', ...)
  seed(given == given and given or 0)
end
world.math = readonly(numbers)
world.os = readonly({clock = function() return clock() end})
world.coroutine = readonly(coroutine)
world.redis = readonly(redis)
world.server = world.redis
world.cjson, world.cmsgpack = readonly(cjson), readonly(cmsgpack)
cjson.new = function() return world.cjson end
world.bit, world.struct = readonly(bit), readonly(struct)
world.rawset = function(target, name, value)
  if protected[target] then refuse() end
  return rawset(target, name, value)
end
-- An error that is a table reaches the script as its text, as it did before Redis 7.
local function plain(ok, problem, ...)
  if not ok and type(problem) == 'table' then
    local text = problem.err
    if type(text) == 'string' or type(text) == 'number' then problem = text end
  end
  return ok, problem, ...
end
world.pcall = function(...) return plain(raw_pcall(...)) end
world.loadstring = function(text, name)
  if type(text) ~= 'string' or text:byte(1) == 27 then return nil, 'bytecode is not allowed' end
  local made, problem = loadstring(text, name)
  if made then setfenv(made, globals) end
  return made, problem
end
world.load = function(pieces, name)
  local parts = {}
  for part in pieces do
    if part == '' then break end
    parts[#parts + 1] = part
  end
  return world.loadstring(concat(parts), name or '=(load)')
end
getmetatable('').__index = strings
getmetatable('').__metatable = false

-- `globals` is what scripts and libraries have as their world: an empty table in front of another one.
local keys, argv
setmetatable(world, {
  __index = function(_, name)
    if keys then
      if name == 'KEYS' then return keys elseif name == 'ARGV' then return argv end
    end
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
})
local window = {__index = world, __newindex = refuse, __metatable = false}
globals = setmetatable({}, window)
protected[globals] = true
world._G = globals

-- A library whose text runs sees nothing but this.
local register
local redis_at_load = copy(redis, 'log LOG_DEBUG LOG_VERBOSE LOG_NOTICE LOG_WARNING REDIS_VERSION REDIS_VERSION_NUM')
redis_at_load.register_function = function(...)
  if not register then fail('redis.register_function can only be called on FUNCTION LOAD command') end
  room()
  local ok, problem = register(...)
  if not ok then fail(problem) end
end
local at_load = setmetatable({redis = readonly(redis_at_load, nonexistent)}, {__index = nonexistent})

local function handler(problem)
  local level, info = 2, nil
  repeat
    info = getinfo(level, 'Sl')
    level = level + 1
  until not info or info.source == '@user_script' or info.source == '@user_function'
  if type(problem) ~= 'table' then problem = {err = 'ERR ' .. tostring(problem)} end
  problem.source, problem.line = nil, nil
  if info then
    problem.source, problem.line = info.source, info.currentline
  else
    problem.source, problem.line = only_line()
  end
  return problem
end

local function compile(text)
  local made, problem = loadstring(text, '@user_script')
  if made then setfenv(made, globals) end
  return made, problem
end

local function limit(over, every)
  local hook
  local made = 0
  hook = function()
    if over() then
      sethook(hook, '', 1)
      error('time limit', 0)
    end
  end
  guard = function()
    sethook(hook, '', every)
    made = made + 1
    if made % 1000 == 0 then hook() end
  end
  sethook(hook, '', every)
end

-- Returns what went wrong.
local function load(text, registering, over, every)
  local chunk, problem = loadstring(text, '@user_function')
  if not chunk then return 'Error compiling function: ' .. problem end
  setfenv(chunk, globals)
  register, window.__index = registering, at_load
  limit(over, every)
  local ok
  ok, problem = raw_pcall(chunk)
  if ok then return nil end
  if type(problem) == 'table' then problem = problem.err else problem = 'ERR ' .. tostring(problem) end
  return 'Error registering functions: ' .. tostring(problem)
end

-- What a script answers is looked at by Python.
local function answer(...)
  if is_full() then return nil end
  return ...
end

local function run(script, script_keys, script_argv, over, every, as_arguments, is_one_line)
  running, one_line = script, is_one_line
  limit(over, every)
  if as_arguments then return answer(xpcall(function() return script(script_keys, script_argv) end, handler)) end
  keys, argv = script_keys, script_argv
  return answer(xpcall(script, handler))
end

local function finish()
  sethook()
  register, window.__index = nil, world
  keys, argv, running = nil, nil, nil
end

return compile, load, run, finish, null
"""
