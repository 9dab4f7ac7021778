#![no_main]

vh5fs_fuzz::target!(time_text);
