// The first thing that Node reads, in a syntax that a very old one understands, so that it can say
// what is wrong in a sentence. Then the bundle, through Node's compile cache: without it, compiling
// is a good part of the time that a short command takes.
"use strict";

var version = process.versions.node.split(".").map(Number);
var fs = require("fs");
var path = require("path");
var dist = path.join(__dirname, "..", "dist");
var bundle = path.join(dist, "brewctl.cjs");

if (version[0] < 24 || (version[0] === 24 && version[1] < 15)) {
  console.error(
    "brewctl: Node " +
      process.versions.node +
      " is too old; brewctl needs Node 24.15 or newer, from https://nodejs.org" +
      (fs.existsSync(path.join(__dirname, "..", "src"))
        ? "; `make build` brings one to this checkout"
        : ""),
  );
  process.exitCode = 2;
} else if (!fs.existsSync(bundle)) {
  console.error("brewctl: not built yet; run: make build");
  process.exitCode = 2;
} else {
  // In the user's own cache: what lies in a shared /tmp could be somebody else's code.
  var cache =
    process.env.XDG_CACHE_HOME || (process.env.HOME && path.join(process.env.HOME, ".cache"));
  // A relative one would be in the working folder.
  if (cache && path.isAbsolute(cache)) {
    // One for each command: the cache has the functions that were used when it was written, and
    // what `help` uses would not help a call.
    var first = process.argv[2] || "";
    var isCommand = /^[a-z-]+$/.test(first) && fs.existsSync(path.join(dist, first + ".cjs"));
    var command = isCommand ? first : "help";
    require("module").enableCompileCache(path.join(cache, "brewctl", command));
  }
  require(bundle);
}
