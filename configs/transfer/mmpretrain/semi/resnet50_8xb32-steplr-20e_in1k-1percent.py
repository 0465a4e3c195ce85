# Fine-tuning with a hundredth of ImageNet's labels as by SwAV's official code.
_base_ = ['resnet50_8xb32-steplr-20e_in1k-10percent.py']

train_dataloader = dict(dataset=dict(ann_file='meta/train_1percent.txt'))

# the classifier's rate is 5
optim_wrapper = dict(
    optimizer=dict(lr=0.02),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=250.0)}),
)
