#![no_main]

vh5fs_fuzz::target!(symbol_table);
