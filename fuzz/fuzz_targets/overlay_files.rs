#![no_main]

vh5fs_fuzz::target!(overlay_files);
