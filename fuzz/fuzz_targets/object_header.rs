#![no_main]

vh5fs_fuzz::target!(object_header);
