#![no_main]

vh5fs_fuzz::target!(fill_value_text);
