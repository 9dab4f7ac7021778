#![no_main]

vh5fs_fuzz::target!(global_heap);
