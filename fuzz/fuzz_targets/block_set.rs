#![no_main]

vh5fs_fuzz::target!(block_set);
