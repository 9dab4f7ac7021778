#![no_main]

vh5fs_fuzz::target!(attribute_message);
