"""The Lua side of scripting: what a script sees, and how it is stopped.

This text runs once in a new interpreter and returns functions that Python calls. A script sees the globals below and
nothing else: no files, no loading of bytecode, no Python. The globals are read-only, as in Redis 7.

Three things in C could run or grow without bound where the instruction hook does not reach: `string.rep`, patterns with
much backtracking, `table.concat`. The first is bounded here, patterns by the length of their subject; memory by the
interpreter's own limit.

The limit on time is a hook that runs every so many instructions. Once time is up it runs at every instruction and
raises each time, so that a script which catches errors with pcall is stopped too.
"""

LONGEST_STRING_BYTES = 64 * 1024**2
LONGEST_SUBJECT_BYTES = 1024**2

SANDBOX = b"""
local raw_call, raw_log, sha1hex, libraries, longest, longest_subject = ...
local sethook, getinfo = debug.sethook, debug.getinfo
local error, type, tostring, xpcall, setmetatable = error, type, tostring, xpcall, setmetatable
local loadstring, setfenv, select, unpack = loadstring, setfenv, select, unpack

local function copy(from, names)
  local to = {}
  for name in names:gmatch('[%w_]+') do to[name] = from[name] end
  return to
end

local function readonly(table)
  return setmetatable({}, {
    __index = table,
    __newindex = function() error('Attempt to modify a readonly table', 2) end,
    __metatable = false,
  })
end

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
  REDIS_VERSION = '7.2.0', REDIS_VERSION_NUM = 0x00070200,
}
redis.call = function(...)
  local ok, value = raw_call(...)
  if not ok then error(value, 0) end
  return value
end
redis.pcall = function(...)
  local ok, value = raw_call(...)
  return value
end
redis.error_reply = function(text)
  if type(text) ~= 'string' then return {err = 'ERR wrong number or type of arguments'} end
  if text:sub(1, 1) == '-' then text = text:sub(2) elseif not text:find(' ', 1, true) then text = 'ERR ' .. text end
  return {err = text}
end
redis.status_reply = function(text)
  if type(text) ~= 'string' then return {err = 'ERR wrong number or type of arguments'} end
  return {ok = text}
end
redis.sha1hex = function(...)
  if select('#', ...) ~= 1 then error('wrong number of arguments', 2) end
  return sha1hex(tostring((...)))
end
redis.log = function(level, ...)
  if type(level) ~= 'number' or select('#', ...) < 1 then error('redis.log() requires two arguments or more.', 2) end
  local words = {...}
  for at = 1, #words do words[at] = tostring(words[at]) end
  raw_log(level, table.concat(words, ' '))
end
redis.setresp = function(version)
  if version ~= 2 and version ~= 3 then error('RESP version must be 2 or 3.', 2) end
  libraries.setresp(version)
end
redis.replicate_commands = function() return true end
redis.set_repl = function() end
redis.breakpoint = function() return false end
redis.debug = function() end
redis.acl_check_cmd = function() return true end

local null = newproxy()
local function library(names)
  local made = {}
  for name in names:gmatch('[%w_]+') do
    local raw = libraries[name]
    made[name:gsub('^%a+_', '')] = function(...)
      local ok, a, b, c = raw(...)
      if not ok then error(a, 2) end
      if type(a) == 'table' and b == libraries.many then return unpack(a, 1, c) end
      return a
    end
  end
  return made
end
local cjson = library('cjson_encode cjson_decode')
cjson.null = null
for _, name in ipairs({'encode_sparse_array', 'encode_max_depth', 'decode_max_depth', 'encode_number_precision',
    'encode_keep_buffer', 'encode_invalid_numbers', 'decode_invalid_numbers'}) do
  cjson[name] = function() end
end
local cmsgpack = library('cmsgpack_pack cmsgpack_unpack')
local struct = library('struct_pack struct_unpack struct_size')
local bit = library([[bit_tobit bit_tohex bit_bnot bit_band bit_bor bit_bxor bit_lshift bit_rshift bit_arshift
  bit_rol bit_ror bit_bswap]])

local world = copy(_G, [[assert collectgarbage error getmetatable ipairs next pairs pcall rawequal rawget select
  setmetatable tonumber tostring type unpack xpcall _VERSION]])
world.string = readonly(strings)
world.table = readonly(table)
local numbers = copy(math, [[abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log log10
  max min modf pi pow rad sin sinh sqrt tan tanh]])
numbers.random, numbers.randomseed = libraries.random, libraries.randomseed
world.math = readonly(numbers)
world.os = readonly({clock = libraries.clock})
world.coroutine = readonly(coroutine)
world.redis, world.cjson, world.cmsgpack = readonly(redis), readonly(cjson), readonly(cmsgpack)
world.bit, world.struct = readonly(bit), readonly(struct)
world.server = world.redis
world.loadstring = function(text, name)
  if type(text) ~= 'string' or text:byte(1) == 27 then return nil, 'bytecode is not allowed' end
  local made, problem = loadstring(text, name)
  if made then setfenv(made, world) end
  return made, problem
end
world._G = world
getmetatable('').__index = strings
getmetatable('').__metatable = false
local keys, argv
setmetatable(world, {
  __index = function(_, name)
    if name == 'KEYS' then return keys elseif name == 'ARGV' then return argv end
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
  __newindex = function(_, name) error("Attempt to modify a readonly table", 2) end,
  __metatable = false,
})

local function handler(problem)
  local level, info = 2, nil
  repeat
    info = getinfo(level, 'Sl')
    level = level + 1
  until not info or info.source == '@user_script'
  if type(problem) ~= 'table' then problem = {err = 'ERR ' .. tostring(problem)} end
  if info and problem.line == nil then problem.source, problem.line = info.source, info.currentline end
  return problem
end

local function compile(text)
  local made, problem = loadstring(text, '@user_script')
  if made then setfenv(made, world) end
  return made, problem
end

local hook
local function run(script, script_keys, script_argv, over, every)
  keys, argv = script_keys, script_argv
  hook = function()
    if over() then
      sethook(hook, '', 1)
      error('time limit', 0)
    end
  end
  sethook(hook, '', every)
  return xpcall(script, handler)
end

local function finish()
  sethook()
  keys, argv = nil, nil
end

return compile, run, finish, null
"""
