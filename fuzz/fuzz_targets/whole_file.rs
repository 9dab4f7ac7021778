#![no_main]

vh5fs_fuzz::target!(whole_file);
