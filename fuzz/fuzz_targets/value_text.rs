#![no_main]

vh5fs_fuzz::target!(value_text);
