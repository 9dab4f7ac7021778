#![no_main]

vh5fs_fuzz::target!(string_lines);
