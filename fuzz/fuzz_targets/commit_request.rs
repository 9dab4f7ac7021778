#![no_main]

vh5fs_fuzz::target!(commit_request);
