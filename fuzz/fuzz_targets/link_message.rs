#![no_main]

vh5fs_fuzz::target!(link_message);
