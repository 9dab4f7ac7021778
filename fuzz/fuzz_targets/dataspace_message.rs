#![no_main]

vh5fs_fuzz::target!(dataspace_message);
