// Formats the Lua of the repository as neovim/stylua.toml says: node stylua.mjs RIG [--write] FILE…
// Without --write it names the files that are not formatted, and fails.
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const [rig, ...rest] = process.argv.slice(2);
const write = rest[0] === '--write';
const files = write ? rest.slice(1) : rest;
const require = createRequire(join(resolve(rig), 'stylua', 'node_modules', 'x.js'));
const { Config, OutputVerification, QuoteStyle, IndentType, formatCode } = require('@johnnymorganz/stylua');

// The formatter takes its configuration away with each call.
function config() {
  const made = Config.new();
  made.column_width = 100;
  made.indent_type = IndentType.Spaces;
  made.indent_width = 2;
  made.quote_style = QuoteStyle.AutoPreferSingle;
  return made;
}

let unformatted = 0;
for (const file of files) {
  const text = readFileSync(file, 'utf8');
  const formatted = formatCode(text, config(), undefined, OutputVerification.Full);
  if (formatted === text) continue;
  if (write) {
    writeFileSync(file, formatted);
  } else {
    unformatted += 1;
    console.log(`${file} is not formatted`);
  }
}
process.exit(unformatted === 0 ? 0 : 1);
