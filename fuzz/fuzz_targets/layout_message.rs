#![no_main]

vh5fs_fuzz::target!(layout_message);
