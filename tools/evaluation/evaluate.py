from mm_rotssl.cli import main

if __name__ == '__main__':
    main('evaluate')
