from mm_rotssl.cli import main

main()
