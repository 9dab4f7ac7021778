#![no_main]

vh5fs_fuzz::target!(record_btree2);
