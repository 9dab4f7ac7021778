#![no_main]

vh5fs_fuzz::target!(chunk_extensible_array);
