#![no_main]

vh5fs_fuzz::target!(filter_fletcher32);
